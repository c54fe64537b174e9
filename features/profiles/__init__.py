"""Customer profiles: tags, segments, lifecycle, snapshots, tag governance and behaviour analytics."""
