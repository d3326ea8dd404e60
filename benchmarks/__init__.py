"""What a user runs to decide: this project beside its peers, in interleaved rounds."""
