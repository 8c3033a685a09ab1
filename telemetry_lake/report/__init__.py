"""``tlake report``: what a stack has done in a period, as one HTML page that needs no network.

``evidence`` asks the services, ``charts`` says what is drawn from the answers, ``page`` writes it down. Only the first
talks to anybody.
"""
