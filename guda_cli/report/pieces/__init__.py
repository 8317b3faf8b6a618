"""What every report is made of: text, HTML, plots, terminal tables."""
