"""May it: policy files become one `Policy`, which answers each request with a `Decision`.

rules       what a file may say: the YAML shape, checked on load
matching    does a rule match a request: what it names, what the request could reach
authorizer  composition: any deny wins, else any hold, else an allow; nothing matches: denied
cases       requests with the decisions they must get, kept beside a policy file
"""
