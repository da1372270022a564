"""A static web site made from run folders: what is on disk is collected, turned into pages and put in place at once.

The site needs no network and no server: pages find their data in script files beside them, because a browser lets a
page that was opened from the disk load scripts and nothing else.
"""
