"""Do the real place and its stand-in behave alike?"""
