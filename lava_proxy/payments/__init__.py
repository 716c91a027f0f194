"""Payment providers behind one seam: `seam` says what we ask of them, one file per provider."""
