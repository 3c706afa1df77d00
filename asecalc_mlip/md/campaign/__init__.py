"""Many runs, starts × seeds × temperatures × models, as one plan that can be continued."""
