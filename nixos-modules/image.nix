# A disk image of the node: ESP, dm-verity hashes, store; the root is a tmpfs and /var a partition made on first boot. Import it
# together with a role. NixOS' own builder makes it (nixos/modules/image/repart-verity-store.nix); the image that Postern ships and
# tests is the one of images/.
{ config, lib, modulesPath, ... }:

let
  inherit (config.image.repart.verityStore) partitionIds;
in
{
  imports = [ "${modulesPath}/image/repart.nix" ];

  image.repart = {
    name = "postern-${config.services.postern.role}";
    verityStore.enable = true;
    partitions = {
      ${partitionIds.esp}.repartConfig = {
        Type = "esp";
        Format = "vfat";
        # Smaller ones are formatted as an invalid FAT32.
        SizeMinBytes = "1G";
      };
      ${partitionIds.store-verity}.repartConfig.Minimize = "best";
      ${partitionIds.store}.repartConfig.Minimize = "best";
    };
  };

  system.image = {
    id = "postern-${config.services.postern.role}";
    inherit (config.services.postern.package) version;
  };

  boot = {
    loader.grub.enable = false;
    initrd.systemd = {
      enable = true;
      repart.enable = true;
    };
  };
  systemd.repart.partitions."50-state" = {
    Type = "var";
    Label = "state";
    Format = "ext4";
  };

  fileSystems = {
    "/" = { fsType = "tmpfs"; device = "none"; options = [ "mode=0755" ]; };
    "/nix/store" = { device = "/usr/nix/store"; fsType = "none"; options = [ "bind" ]; neededForBoot = true; };
    "/var" = { device = "/dev/disk/by-partlabel/state"; fsType = "ext4"; neededForBoot = true; };
  };

  # /usr is the read-only store partition.
  system.activationScripts.usrbinenv = lib.mkForce "";
}
