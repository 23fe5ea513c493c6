"""How near chapters come to those that people made: boundaries and titles, of engines and of simpler ways."""
