"""Documents: Markdown whose numbers, tables and figures come from results, as PDF and HTML."""
