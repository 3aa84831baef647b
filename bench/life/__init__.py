"""A run's whole life on real devices: started, killed, resumed, stopped by a signal, moved to fewer and to more ranks,
released and loaded. ``python -m bench.life``; ``--help`` lists the options.
"""
