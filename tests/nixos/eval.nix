# Evaluates the modules against nixpkgs' lib, typed stubs of the options (stubs.nix) and packages that are only names.
# Gives a list of { name; ok; }; nothing is built.
{ nixpkgsLib, modulesPath }:

let
  lib = import nixpkgsLib;

  package = name: version: {
    type = "derivation";
    inherit name version;
    outPath = "${builtins.storeDir}/00000000000000000000000000000000-${name}";
  };
  pkgs = {
    callPackage = file: arguments: package (baseNameOf (toString file)) "0.1.0" // { inherit arguments; };
    buildEnv = arguments: package arguments.name "0" // { inherit (arguments) paths; };
    runCommand = name: _: script: package name "0" // { inherit script; };
    writeText = name: text: package name "0" // { inherit text; };
    emptyDirectory = package "empty-directory" "0";
  } // lib.genAttrs [ "nftables" "unbound" "systemd" "clamav" "suricata" "dns-root-data" "netcat" ] (name: package name "1.0")
  // { spamassassin = package "spamassassin" "4.0.1"; dovecot = package "dovecot" "2.4.2"; };

  evaluate = pkgs: modules: (lib.evalModules {
    specialArgs = { inherit pkgs modulesPath; };
    modules = [ ./stubs.nix ] ++ modules;
  }).config;

  # The flake's own outputs, with lib.nixosSystem and the package set replaced.
  flake = (import ../../flake.nix).outputs {
    self = {
      inherit (flake) nixosModules;
      packages = { };
      nixosConfigurations = { };
    };
    nixpkgs = {
      lib = lib // { nixosSystem = { modules }: { config = evaluate pkgs modules; }; };
      legacyPackages.x86_64-linux = pkgs;
    };
  };
  gateway = flake.nixosConfigurations.gateway.config;
  internal = flake.nixosConfigurations.internal.config;

  vm = import ./vm.nix { inherit lib pkgs; };
  vmNode = name: evaluate pkgs [ vm.nodes.${name} ];

  broken = config: map (assertion: assertion.message) (lib.filter (assertion: !assertion.assertion) config.assertions);
  # Whether the evaluation fails. Everything that a module sets is forced.
  refused = config: !(builtins.tryEval (builtins.deepSeq (lib.filterAttrs (name: _: name != "_module") config) true)).success;

  settings = extra: lib.recursiveUpdate
    {
      enable = true;
      site = ../../docs/site.example.toml;
      node = "gateway";
      spamRules = pkgs.emptyDirectory;
      credentials = { ca = "/run/keys/ca"; nodeCertificate = "/run/keys/cert"; nodeKey = "/run/keys/key"; };
    }
    extra;
  gatewayWith = extra: evaluate pkgs [ ../../nixos-modules/gateway.nix { services.postern = settings extra; } ];

  accounts = lib.filter (row: lib.length row > 2 && lib.toInt (lib.elemAt row 2) >= 3000)
    (map (lib.splitString ":") (lib.splitString "\n" (builtins.readFile ../../images/accounts/passwd)));
  loads = config: config.systemd.services.postern-import.serviceConfig.LoadCredential;
  unitFile = role: unit:
    let template = builtins.replaceStrings [ (lib.last (builtins.match "[^@]*(@[^.]*)?\\.[a-z]*" unit)) ] [ "@" ] unit;
      file = if lib.hasInfix "@" unit then template else unit;
    in builtins.pathExists (../../images/units + "/${file}") || builtins.pathExists (../../images/units + "/${role}/${file}");
  wanted = config: config.systemd.targets.postern.wants ++ config.systemd.targets.sysinit.wants;

  ofRole = role: config: {
    "${role}: the whole configuration evaluates" = !refused config;
    "${role}: no assertion is broken" = broken config == [ ];
    "${role}: postern.target starts with the machine" = config.systemd.targets.postern.wantedBy == [ "multi-user.target" ];
    "${role}: closed comes with sysinit.target, before any link" = config.systemd.targets.sysinit.wants == [ "postern-closed.service" ];
    "${role}: firewall, queue and console are wanted" = lib.all (unit: lib.elem unit (wanted config))
      [ "postern-firewall.service" "postern-queue.service" "postern-console@tty1.service" "postern-console@ttyS0.service" ];
    "${role}: each wanted unit is a file of images/units" = lib.filter (unit: !unitFile role unit) (wanted config) == [ ];
    "${role}: user ids are the image's" = lib.length accounts > 10 && lib.all
      (row: config.users.users.${lib.head row}.uid == lib.toInt (lib.elemAt row 2)
        && config.users.groups.${lib.head row}.gid == lib.toInt (lib.elemAt row 3))
      accounts;
    "${role}: site and credentials go in by the importer" = lib.all (name: lib.any (lib.hasPrefix "postern.${name}:") (loads config))
      [ "site" "node" "ca" "node-cert" "node-key" ];
    "${role}: what is not given is not handed over" = !lib.any (lib.hasPrefix "postern.smtp") (loads config);
    "${role}: NixOS' own firewall is off" = !config.networking.firewall.enable && !config.networking.nftables.enable;
    "${role}: the site is checked when the system is built" = lib.any
      (check: lib.hasInfix "postern site check" check.script && lib.hasInfix ''role = "${role}"'' check.script) config.system.checks;
    "${role}: units and rule sets are filled for this role" = (lib.head config.systemd.packages).arguments.role == role;
    "${role}: no getty" = !config.systemd.services."getty@tty1".enable && !config.systemd.services."serial-getty@ttyS0".enable;
    "${role}: the image holds a verity store and a state partition" = config.image.repart.verityStore.enable
      && config.systemd.repart.partitions."50-state".Type == "var" && config.system.image.id == "postern-${role}";
  };

  tests = ofRole "gateway" gateway // ofRole "internal" internal // {
    "gateway: public listener, scanners and IDS are wanted" = lib.all (unit: lib.elem unit (wanted gateway))
      [ "postern-smtpd@public.service" "postern-public-mx.socket" "postern-clamd.service" "postern-spamd.service" "postern-scan.service" "postern-suricata.service" ];
    "internal: Dovecot is wanted, the public listener is not" = lib.elem "postern-dovecot.service" (wanted internal)
      && !lib.elem "postern-smtpd@public.service" (wanted internal);
    "gateway: spamd's rules lie where its version looks" = lib.any (lib.hasPrefix "L+ /var/lib/spamassassin/4.000001 ") gateway.systemd.tmpfiles.rules;
    "a module that is not enabled sets nothing" =
      (evaluate pkgs [ ../../nixos-modules/internal.nix ]).systemd.packages == [ ];
    "a complete configuration is taken (so the refusals below mean something)" = !refused (gatewayWith { });
    "refused: an unknown option" = refused (gatewayWith { extraConfig = "accept"; });
    "refused: a node's name that is none" = refused (gatewayWith { node = "gate way"; });
    "refused: a key in the store" = refused (gatewayWith { credentials.nodeKey = "${builtins.storeDir}/00000000000000000000000000000000-key"; });
    "refused: a key as a path, which would be copied to the store" = refused (gatewayWith { credentials.nodeKey = ./eval.nix; });
    "refused: a relative path" = refused (gatewayWith { credentials.ca = "ca.crt"; });
    "refused: no site" = refused (evaluate pkgs [ ../../nixos-modules/gateway.nix { services.postern = removeAttrs (settings { }) [ "site" ]; } ]);
    "asserted: a certificate without its key" = lib.length (broken (gatewayWith { credentials.smtpCertificate = "/run/keys/c"; })) == 1;
    "asserted: no users in the DMZ" = lib.length (broken (gatewayWith { credentials.users = "/run/keys/u"; })) == 1;
    "asserted: Dovecot older than 2.4" = lib.length (broken (evaluate (pkgs // { dovecot = package "dovecot" "2.3.21"; })
      [ ../../nixos-modules/internal.nix { services.postern = removeAttrs (settings { node = "internal"; }) [ "spamRules" ]; } ])) == 1;
    "refused: NixOS' firewall beside ours" = refused (evaluate pkgs
      [ ../../nixos-modules/gateway.nix { services.postern = settings { }; } { networking.firewall.enable = true; } ]);
    "vm: its three machines evaluate" = lib.attrNames vm.nodes == [ "gateway" "internal" "outside" ]
      && !lib.any (name: refused (vmNode name)) (lib.attrNames vm.nodes);
    "vm: no assertion is broken" = lib.concatMap (name: broken (vmNode name)) (lib.attrNames vm.nodes) == [ ];
    "vm: links have the zones' names" = lib.attrNames (vmNode "gateway").virtualisation.interfaces == [ "dmz" "outside" ];
    "flake: both modules, both examples, the VM test" = lib.attrNames flake.nixosModules == [ "gateway" "internal" ]
      && lib.attrNames flake.nixosConfigurations == [ "gateway" "internal" ] && lib.attrNames flake.checks.x86_64-linux == [ "vm" ];
  };
in
lib.mapAttrsToList (name: ok: { inherit name ok; }) tests
