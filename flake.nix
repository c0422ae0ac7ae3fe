{
  description = "Postern: a mail gate that lets mail, and nothing but mail, cross a DMZ";

  # Wants a nixpkgs with Rust 1.95 and Dovecot 2.4. There is no flake.lock here: see nixos-modules/README.md, "What was never built".
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};

      # An example of each node; a real one has its own site file and its secrets by a tool such as sops-nix.
      node = role: extra: lib.nixosSystem {
        modules = [
          self.nixosModules.${role}
          ./nixos-modules/image.nix
          {
            nixpkgs.hostPlatform = system;
            system.stateVersion = "26.05";
            services.postern = {
              enable = true;
              site = ./docs/site.example.toml;
              node = role;
              credentials = {
                ca = "/var/lib/secrets/ca.crt";
                nodeCertificate = "/var/lib/secrets/node.crt";
                nodeKey = "/var/lib/secrets/node.key";
              };
            };
          }
          extra
        ];
      };
    in
    {
      packages.${system} = {
        default = self.packages.${system}.postern;
        postern = pkgs.callPackage ./nixos-modules/package.nix { };
        image-gateway = self.nixosConfigurations.gateway.config.system.build.finalImage;
        image-internal = self.nixosConfigurations.internal.config.system.build.finalImage;
      };

      nixosModules = {
        gateway = ./nixos-modules/gateway.nix;
        internal = ./nixos-modules/internal.nix;
      };

      nixosConfigurations = {
        # Empty rules keep spamd, and so the gateway, shut: an example has none to give.
        gateway = node "gateway" { services.postern.spamRules = pkgs.emptyDirectory; };
        internal = node "internal" { };
      };

      checks.${system}.vm = pkgs.testers.runNixOSTest ./tests/nixos/vm.nix;
    };
}
