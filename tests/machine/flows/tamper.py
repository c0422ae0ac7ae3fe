"""Flow f: a node whose root has one flipped byte, in a file that is read at boot, never serves."""
