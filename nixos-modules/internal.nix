# The internal node: firewall 2, mailboxes, submission.
{ config, lib, pkgs, ... }:

let
  cfg = config.services.postern;
in
{
  imports = [ ./common.nix ];

  config = lib.mkIf cfg.enable {
    services.postern = {
      role = "internal";
      daemons = [ pkgs.dovecot ];
    };
    assertions = [{
      assertion = lib.versionAtLeast pkgs.dovecot.version "2.4";
      message = "services.postern: pkgs.dovecot is ${pkgs.dovecot.version}; the rendered configuration is Dovecot 2.4's: overlay a newer one";
    }];
  };
}
