"""What people look at: reads for the pages, each by an index, so that a large catalog is as quick as a small one."""
