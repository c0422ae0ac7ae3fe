# Both modules on NixOS machines, by nixpkgs' VM test driver: `nix build .#checks.x86_64-linux.vm`. The units come up, the rule set
# stands, and from outside the gateway's SMTP port answers while its neighbour does not.
{ lib, pkgs, ... }:

let
  postern = pkgs.callPackage ../../nixos-modules/package.nix { };

  # The example site, with the hardware addresses that the test driver gives: network, then machine by order of name
  # (nixpkgs: nixos/lib/qemu-common.nix, qemuNicMac).
  vlan = { outside = 1; dmz = 2; internal = 3; };
  site = pkgs.writeText "site.toml" (lib.replaceStrings
    [ "52:54:00:c8:00:0a" "52:54:00:c8:09:0a" "52:54:00:c8:09:02" "52:54:00:c8:01:19" ]
    [ "52:54:00:12:01:01" "52:54:00:12:02:01" "52:54:00:12:02:02" "52:54:00:12:03:02" ]
    (builtins.readFile ../../docs/site.example.toml));
  authority = pkgs.runCommand "postern-test-authority" { nativeBuildInputs = [ postern ]; } ''
    postern pki init --site ${site} --out $out
  '';

  # In /etc, since the modules take no secret from the store. These secrets guard nothing.
  node = role: links: {
    imports = [ (../../nixos-modules + "/${role}.nix") ];
    virtualisation.interfaces = lib.genAttrs links (link: { vlan = vlan.${link}; assignIP = false; });
    environment.etc = {
      "postern-test/ca.crt".source = "${authority}/ca.crt";
      "postern-test/node.crt".source = "${authority}/${role}.crt";
      "postern-test/node.key".source = "${authority}/${role}.key";
    };
    services.postern = {
      enable = true;
      package = postern;
      inherit site;
      node = role;
      credentials = {
        ca = "/etc/postern-test/ca.crt";
        nodeCertificate = "/etc/postern-test/node.crt";
        nodeKey = "/etc/postern-test/node.key";
      };
    };
  };
in
{
  name = "postern";

  nodes = {
    gateway = {
      imports = [ (node "gateway" [ "outside" "dmz" ]) ];
      # No rule channel can be fetched in a build: spamd stays down, and mail would get 451.
      services.postern.spamRules = pkgs.emptyDirectory;
    };
    internal = node "internal" [ "dmz" "internal" ];
    outside = {
      virtualisation.interfaces.outside = { vlan = vlan.outside; assignIP = false; };
      networking.useNetworkd = true;
      networking.useDHCP = false;
      systemd.network.networks."10-outside" = {
        matchConfig.Name = "outside";
        address = [ "203.0.113.1/24" ];
        routes = [{ Destination = "10.200.0.0/16"; Gateway = "203.0.113.10"; }];
      };
      environment.systemPackages = [ pkgs.netcat ];
    };
  };

  testScript = ''
    start_all()
    for node in [gateway, internal]:
        node.wait_for_unit("postern-firewall.service")
        node.wait_for_unit("postern-queue.service")
        node.succeed("nft list table inet postern | grep -q 'policy drop'")
        node.succeed("ip link show dmz")
    gateway.wait_for_unit("postern-smtpd@public.service")
    internal.wait_for_unit("postern-dovecot.service")
    outside.wait_for_unit("systemd-networkd.service")

    with subtest("the gateway greets on port 25"):
        outside.wait_until_succeeds("sleep 1 | nc -w 5 203.0.113.10 25 | grep '^220 mx1.example.org'")
    with subtest("its neighbours are silent"):
        for target in ["203.0.113.10 22", "203.0.113.10 993", "10.200.9.10 25", "10.200.1.25 25", "10.200.1.25 993"]:
            outside.fail(f"nc -z -w 3 {target}")
    with subtest("a rule set that is reloaded stands, one that is stopped too"):
        gateway.succeed("systemctl reload postern-firewall.service", "systemctl stop postern-firewall.service")
        gateway.succeed("nft list table inet postern | grep -q 'policy drop'")
  '';
}
