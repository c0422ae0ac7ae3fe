# What both roles share. One file describes the site; everything else follows from it. There is no option that
# passes text through to a rule set, a daemon or a unit.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkOption types;
  cfg = config.services.postern;
  recipe = import ./recipe.nix { inherit lib; };

  # A secret must not be in the world-readable store; only its path is given.
  secret = types.pathWith { absolute = true; inStore = false; };

  programs = pkgs.buildEnv {
    name = "postern-programs";
    paths = [ cfg.package pkgs.nftables pkgs.unbound pkgs.systemd ] ++ cfg.daemons;
    pathsToLink = [ "/bin" ];
  };
  share = pkgs.callPackage ./share.nix { inherit programs; inherit (cfg) role; };

  # The site is checked and rendered when the system is built: a wrong site file does not build, nor does a node of
  # the other role. What runs is rendered again at boot, by the same program from the same file.
  rendered = pkgs.runCommand "postern-site-${cfg.node}" { nativeBuildInputs = [ cfg.package ]; } ''
    postern site check ${cfg.site}
    mkdir $out
    postern site render ${cfg.site} --node ${cfg.node} --out $out
    if ! grep -qx 'role = "${cfg.role}"' $out/relay.toml; then
      echo "node ${cfg.node} of the site is no ${cfg.role}: import the other role's module, or name another node" >&2
      exit 1
    fi
  '';
  nodeName = pkgs.writeText "postern-node" "${cfg.node}\n";

  handedOver = lib.mapAttrsToList (name: path: "postern.${name}:${path}") (lib.filterAttrs (_: path: path != null) {
    site = cfg.site;
    node = nodeName;
    ca = cfg.credentials.ca;
    node-cert = cfg.credentials.nodeCertificate;
    node-key = cfg.credentials.nodeKey;
    smtp-cert = cfg.credentials.smtpCertificate;
    smtp-key = cfg.credentials.smtpKey;
    users = cfg.credentials.users;
    "dmz-state.password" = cfg.credentials.dmzStatePassword;
    smarthost-login = cfg.credentials.smarthostLogin;
  });
in
{
  options.services.postern = {
    enable = lib.mkEnableOption "this node of a Postern mail gate";

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The Postern programs.";
    };

    site = mkOption {
      type = types.path;
      example = lib.literalExpression "./site.toml";
      description = "The site file. It holds no secret, and is checked and rendered when the system is built.";
    };

    node = mkOption {
      type = types.strMatching "[a-z0-9]([a-z0-9-]*[a-z0-9])?";
      example = "gateway";
      description = "Which node of the site this machine is.";
    };

    credentials = {
      ca = mkOption {
        type = secret;
        description = "Certificate of the authority that signed the nodes' certificates (PEM).";
      };
      nodeCertificate = mkOption {
        type = secret;
        description = "This node's certificate (PEM), by which the other node knows it.";
      };
      nodeKey = mkOption {
        type = secret;
        description = "The key of {option}`services.postern.credentials.nodeCertificate` (PEM).";
      };
      smtpCertificate = mkOption {
        type = types.nullOr secret;
        default = null;
        description = "Certificate shown to mail clients and servers. Without one the node signs its own, and says so loudly.";
      };
      smtpKey = mkOption {
        type = types.nullOr secret;
        default = null;
        description = "The key of {option}`services.postern.credentials.smtpCertificate` (PEM).";
      };
      dmzStatePassword = mkOption {
        type = types.nullOr secret;
        default = null;
        description = "Password of the gateways' user at the host of `[dmz-state]`. Only for gateways, where the site names that host.";
      };
      smarthostLogin = mkOption {
        type = types.nullOr secret;
        default = null;
        description = "User name and password at the site's smarthost, on a line each. Only for the gateway.";
      };
      users = mkOption {
        type = types.nullOr secret;
        default = null;
        description = "Mail users of the first boot. Only for the internal node: users never go into the DMZ.";
      };
    };

    role = mkOption {
      type = types.enum [ "gateway" "internal" ];
      internal = true;
      description = "Set by the role's module.";
    };

    daemons = mkOption {
      type = types.listOf types.package;
      internal = true;
      description = "The daemons of the role, set by its module.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = (cfg.credentials.smtpCertificate == null) == (cfg.credentials.smtpKey == null);
        message = "services.postern.credentials: smtpCertificate and smtpKey go together: set both or neither";
      }
      {
        assertion = cfg.role == "internal" || cfg.credentials.users == null;
        message = "services.postern.credentials.users: users never go into the DMZ: set it on the internal node";
      }
      {
        assertion = !config.networking.firewall.enable && !config.networking.nftables.enable;
        message = "services.postern: networking.firewall and networking.nftables must stay off: Postern's rule set is the firewall";
      }
    ];

    users.users = lib.mapAttrs
      (name: user: {
        inherit (user) uid description home;
        group = name;
        isSystemUser = true;
      })
      recipe.users;
    users.groups = lib.mapAttrs (_: gid: { inherit gid; }) recipe.groups;

    systemd.packages = [ share ];
    systemd.tmpfiles.packages = [ share ];
    environment.etc."sysctl.d/50-postern.conf".source = "${share}/lib/sysctl.d/50-postern.conf";
    system.checks = [ rendered ];

    # NixOS does not read [Install]: the image's presets say what starts.
    systemd.targets.sysinit.wants = [ "postern-closed.service" ];
    systemd.targets.postern = {
      wantedBy = [ "multi-user.target" ];
      wants = lib.remove "postern-closed.service" (recipe.units cfg.role);
    };

    # The way in is the image's: credentials, checked and kept by `postern node import`.
    systemd.services.postern-import.serviceConfig.LoadCredential = handedOver;

    # The renderer names the root hints and the trust anchor by Debian's path.
    systemd.services.postern-unbound.serviceConfig = {
      TemporaryFileSystem = "/usr:ro";
      BindReadOnlyPaths = "${pkgs.dns-root-data}:/usr/share/dns";
    };

    # Links, addresses, routes, the resolver and the firewall are the site's.
    networking = {
      useNetworkd = true;
      useDHCP = false;
      firewall.enable = false;
      nftables.enable = false;
      resolvconf.enable = false;
    };
    services.resolved.enable = false;
    environment.etc."resolv.conf".source = "/run/postern/resolv.conf";

    # The console is the only thing on the screen and the serial line.
    services.openssh.enable = false;
    systemd.services."getty@tty1".enable = false;
    systemd.services."serial-getty@ttyS0".enable = false;
  };
}
