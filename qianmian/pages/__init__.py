"""What HTML files for people are made of: escaped markup, charts as inline SVG, a style sheet that prints well."""
