"""What every room uses: records, random streams, small tensor operations, pictures and files."""
