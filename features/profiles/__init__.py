"""What is known of a customer: tags, segments, lifecycle, snapshots, governance and journey analytics."""
