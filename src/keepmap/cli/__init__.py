"""The `keepmap` command: one file per subcommand, each a thin shell over the Python function of the same name.

Holds no logic of its own: whatever a command does, `keepmap.<command>` does.
"""
