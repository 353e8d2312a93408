"""Do the levels, the coverage and the budgets hold that the statistics promise?"""
