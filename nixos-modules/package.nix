# The Rust programs: postern, postern-relay, postern-console.
{ lib, rustPlatform, cmake }:

let
  root = ../.;
in
rustPlatform.buildRustPackage {
  pname = "postern";
  inherit ((lib.importTOML (root + "/Cargo.toml")).workspace.package) version;

  src = lib.fileset.toSource {
    inherit root;
    # docs/ and tests/ hold files that crates read in their tests.
    fileset = lib.fileset.unions [
      (root + "/Cargo.toml")
      (root + "/Cargo.lock")
      (root + "/clippy.toml")
      (root + "/crates")
      (root + "/docs")
    ];
  };
  cargoLock.lockFile = root + "/Cargo.lock";

  # aws-lc, rustls' cryptography, is C.
  nativeBuildInputs = [ cmake ];
  dontUseCmakeConfigure = true;

  # The other crates' tests want root, Landlock or network namespaces; `make test` runs those.
  cargoTestFlags = [ "--package=postern-site" "--package=postern-smtp" "--package=postern-control" ];

  meta = {
    description = "A mail gate: lets mail, and nothing but mail, cross a DMZ";
    license = with lib.licenses; [ mit asl20 ];
    mainProgram = "postern";
    platforms = lib.platforms.linux;
  };
}
