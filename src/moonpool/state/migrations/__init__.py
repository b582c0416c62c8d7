"""How an older database becomes what this program needs: one numbered step per change, never edited afterwards."""
