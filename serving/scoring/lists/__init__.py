"""Lists and reports for people: scores with headings, values, dates and reasons in words of one language."""
