"""What a package brings to a MemOS server: a memory type (`task`) and a search index (`sqlite_index`)."""
