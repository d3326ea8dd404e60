"""A site whose handlers write down in the database what they did."""
