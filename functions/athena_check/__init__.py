"""The check after a load: does Athena see what the run says that it stored, once and in range?"""
