# What nixos-modules/image.nix sets of the image builder. As in nixpkgs the file is found below modulesPath.
{ lib, ... }:

let
  inherit (lib) mkOption types;
  value = type: default: mkOption { inherit type default; };
in
{
  options.image.repart = {
    # nixos/modules/image/repart.nix
    name = mkOption { type = types.str; };
    partitions = value (types.attrsOf (types.submodule {
      options.repartConfig = value (with types; attrsOf (oneOf [ str int bool (listOf str) ])) { };
    })) { };
    # nixos/modules/image/repart-verity-store.nix
    verityStore.enable = value types.bool false;
    verityStore.partitionIds = {
      esp = value types.str "00-esp";
      store-verity = value types.str "10-store-verity";
      store = value types.str "20-store";
    };
  };
}
