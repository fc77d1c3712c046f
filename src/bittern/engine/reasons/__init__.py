"""Why a torrent does what it does, or nothing. Level 5."""
