# The gateway: firewall 1, mail gateway, scanners, IDS.
{ config, lib, pkgs, ... }:

let
  cfg = config.services.postern;
  # spamd looks for a rule channel under a directory named 4.000001 where its version is 4.0.1.
  parts = map lib.toInt (lib.splitVersion pkgs.spamassassin.version);
  three = number: lib.fixedWidthNumber 3 number;
  channel = "${toString (lib.elemAt parts 0)}.${three (lib.elemAt parts 1)}${three (lib.elemAt parts 2)}";
in
{
  imports = [ ./common.nix ];

  options.services.postern.spamRules = lib.mkOption {
    type = lib.types.path;
    description = ''
      Directory of a SpamAssassin rule channel, as sa-update leaves it: nixpkgs packages spamd without rules, and without
      rules spamd does not start, so that the gateway answers 451 to everything.
    '';
  };

  config = lib.mkIf cfg.enable {
    services.postern = {
      role = "gateway";
      daemons = [ pkgs.clamav pkgs.spamassassin pkgs.suricata ];
    };
    systemd.tmpfiles.rules = [ "L+ /var/lib/spamassassin/${channel} - - - - ${cfg.spamRules}" ];
  };
}
