"""How well a movie was aligned: one record of figures, how each is computed, and when a person should look."""
