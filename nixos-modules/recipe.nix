# What the image recipe says, read as data: so that the NixOS modules have the same units, accounts and start list.
{ lib }:

let
  images = ../images;
  lines = file: lib.filter (line: line != "" && !lib.hasPrefix "#" line) (lib.splitString "\n" (builtins.readFile file));
  words = line: lib.filter (word: word != "") (lib.splitString " " line);
  fields = file: map (lib.splitString ":") (lines file);
  # Below 1000 are the base system's own accounts, which NixOS numbers itself.
  pinned = index: lib.filter (row: lib.toInt (lib.elemAt row index) >= 3000);

  presets = role: [
    (images + "/root/mkosi.extra/usr/lib/systemd/system-preset/10-postern.preset")
    (images + "/root/extra-${role}/usr/lib/systemd/system-preset/20-postern-${role}.preset")
  ];

  # "enable postern-queue@.socket public inside" -> [ "postern-queue@public.socket" "postern-queue@inside.socket" ]
  enabled = line:
    let
      parts = words line;
      unit = lib.elemAt parts 1;
      instances = lib.drop 2 parts;
    in
    if lib.head parts != "enable" then [ ]
    else if instances == [ ] then [ unit ]
    else map (instance: lib.replaceStrings [ "@." ] [ "@${instance}." ] unit) instances;
in
{
  # Every unit of ours that the role starts, by the image's presets.
  units = role: lib.filter (lib.hasPrefix "postern-") (lib.concatMap enabled (lib.concatMap lines (presets role)));

  # The image's pinned ids: an update, or a move between image and NixOS, must not orphan the queue.
  users = lib.listToAttrs (map
    (row: lib.nameValuePair (lib.elemAt row 0) {
      uid = lib.toInt (lib.elemAt row 2);
      gid = lib.toInt (lib.elemAt row 3);
      description = lib.elemAt row 4;
      home = lib.elemAt row 5;
    })
    (pinned 2 (fields (images + "/accounts/passwd"))));
  groups = lib.listToAttrs (map (row: lib.nameValuePair (lib.elemAt row 0) (lib.toInt (lib.elemAt row 2)))
    (pinned 2 (fields (images + "/accounts/group"))));
}
