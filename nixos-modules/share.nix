# The files that the image carries beside programs: units with their placeholders filled, rule sets, the daemons'
# configuration. Same sources as images/build; here /usr/share/postern is a store path.
{ lib, runCommand, role, programs }:

runCommand "postern-${role}"
{
  recipe = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [ ../firewall ../images/units ../images/root ];
  };
  inherit role programs;
} ''
  data=$out/share/postern
  mkdir -p $out/lib/systemd/system $out/lib/tmpfiles.d $out/lib/sysctl.d $data/firewall

  cp $recipe/firewall/*.nft $data/firewall/
  for tree in $recipe/images/root/mkosi.extra $recipe/images/root/extra-$role; do
    if [ -d $tree/usr/share/postern ]; then cp -r --no-preserve=mode $tree/usr/share/postern/. $data/; fi
    if [ -d $tree/usr/lib/tmpfiles.d ]; then cp $tree/usr/lib/tmpfiles.d/postern*.conf $out/lib/tmpfiles.d/; fi
  done
  if [ $role = gateway ]; then
    mkdir -p $data/suricata
    cp $recipe/firewall/suricata/*.rules $data/suricata/
  fi
  cp $recipe/images/root/mkosi.extra/usr/lib/sysctl.d/50-postern.conf $out/lib/sysctl.d/
  find $data -type f -exec sed -i "s#/usr/share/postern#$data#g" {} +

  fill() { # fill DIRECTORY: its units and drop-ins
    (cd $1 && find . -type f -not -path './gateway/*' -not -path './internal/*') | while read -r unit; do
      mkdir -p "$(dirname "$out/lib/systemd/system/$unit")"
      sed -e "s#@bindir@#$programs/bin#g; s#@sbindir@#$programs/bin#g; s#@datadir@#$data#g; s#@role@#$role#g" \
        "$1/$unit" > "$out/lib/systemd/system/$unit"
    done
  }
  fill $recipe/images/units
  fill $recipe/images/units/$role
  # What makes an image's slot good has no meaning where NixOS chooses what boots.
  rm -rf $out/lib/systemd/system/boot-complete.target.d
  if grep -rn '@[a-z]*@' $out/lib/systemd/system; then
    echo "a unit has a placeholder that nixos-modules/share.nix does not know" >&2
    exit 1
  fi
''
