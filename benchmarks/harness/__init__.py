"""What every benchmark uses: timing, the environment, records, options, studies and the figures' style."""
