# The NixOS options that the modules of nixos-modules/ set, with their types, so that the modules can be evaluated with
# nixpkgs' lib alone. Each cites the file of nixpkgs that declares the real one. What a module sets and is not
# declared here is an error of the evaluation, as it would be in NixOS.
{ lib, ... }:

let
  inherit (lib) mkOption types;
  value = type: default: mkOption { inherit type default; };
  # nixos/lib/systemd-unit-options.nix: unitOption
  unitOption = with types; let atom = oneOf [ bool int float str path package ]; in attrsOf (either atom (listOf atom));
  # nixos/lib/systemd-unit-options.nix: sharedOptions, commonUnitOptions
  unit = extra: types.attrsOf (types.submodule {
    options = {
      enable = value types.bool true;
      wantedBy = value (types.listOf types.str) [ ];
      wants = value (types.listOf types.str) [ ];
    } // extra;
  });
in
{
  options = {
    assertions = value (types.listOf types.unspecified) [ ]; # nixos/modules/misc/assertions.nix

    # nixos/modules/system/boot/systemd.nix
    systemd.packages = value (types.listOf types.package) [ ];
    systemd.targets = value (unit { }) { };
    systemd.services = value (unit { serviceConfig = value unitOption { }; }) { };
    # nixos/modules/system/boot/systemd/tmpfiles.nix
    systemd.tmpfiles.packages = value (types.listOf types.package) [ ];
    systemd.tmpfiles.rules = value (types.listOf types.str) [ ];
    # nixos/modules/system/boot/systemd/repart.nix
    systemd.repart.partitions = value (with types; attrsOf (attrsOf (oneOf [ str int bool ]))) { };
    boot.initrd.systemd.repart.enable = value types.bool false;

    # nixos/modules/config/users-groups.nix
    users.users = value (types.attrsOf (types.submodule {
      options = {
        uid = value (types.nullOr types.int) null;
        description = value types.singleLineStr "";
        home = value types.str "/var/empty";
        group = value types.str "";
        isSystemUser = value types.bool false;
      };
    })) { };
    users.groups = value (types.attrsOf (types.submodule { options.gid = value (types.nullOr types.int) null; })) { };

    # nixos/modules/system/etc/etc.nix
    environment.etc = value (types.attrsOf (types.submodule { options.source = mkOption { type = types.path; }; })) { };
    # nixos/modules/system/activation/top-level.nix
    system.checks = value (types.listOf types.package) [ ];
    # nixos/modules/system/activation/activation-script.nix
    system.activationScripts = value (types.attrsOf types.str) { };
    # nixos/modules/misc/version.nix
    system.image.id = value (types.nullOr types.str) null;
    system.image.version = value (types.nullOr types.str) null;
    # nixos/modules/misc/nixpkgs.nix, nixos/modules/misc/version.nix; set by the flake's examples
    nixpkgs.hostPlatform = value types.str "x86_64-linux";
    system.stateVersion = value types.str "26.05";

    # nixos/modules/tasks/network-interfaces.nix
    networking.useNetworkd = value types.bool false;
    networking.useDHCP = value types.bool true;
    # nixos/modules/services/networking/firewall.nix; on by default, as there
    networking.firewall.enable = value types.bool true;
    # nixos/modules/services/networking/nftables.nix
    networking.nftables.enable = value types.bool false;
    # nixos/modules/config/resolvconf.nix
    networking.resolvconf.enable = value types.bool true;
    # nixos/modules/system/boot/resolved.nix
    services.resolved.enable = value types.bool false;
    # nixos/modules/services/networking/ssh/sshd.nix
    services.openssh.enable = value types.bool false;

    # nixos/modules/virtualisation/guest-networking-options.nix; set by tests/nixos/vm.nix, as the next two are
    virtualisation.interfaces = value (types.attrsOf (types.submodule {
      options = {
        vlan = mkOption { type = types.ints.unsigned; };
        assignIP = value types.bool false;
      };
    })) { };
    # nixos/modules/config/system-path.nix
    environment.systemPackages = value (types.listOf types.package) [ ];
    # nixos/modules/system/boot/networkd.nix
    systemd.network.networks = value (types.attrsOf (types.submodule {
      options = {
        matchConfig = value unitOption { };
        address = value (types.listOf types.str) [ ];
        routes = value (types.listOf unitOption) [ ];
      };
    })) { };

    # nixos/modules/tasks/filesystems.nix
    fileSystems = value (types.attrsOf (types.submodule {
      options = {
        device = value (types.nullOr types.nonEmptyStr) null;
        fsType = value types.nonEmptyStr "auto";
        options = value (types.nonEmptyListOf types.str) [ "defaults" ];
        neededForBoot = value types.bool false; # nixos/modules/system/boot/stage-1.nix
      };
    })) { };
    # nixos/modules/system/boot/loader/grub/grub.nix
    boot.loader.grub.enable = value types.bool true;
    # nixos/modules/system/boot/systemd/initrd.nix
    boot.initrd.systemd.enable = value types.bool false;
  };
}
