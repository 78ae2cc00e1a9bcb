# The plain question: what do the rules say about the facts of input? The rules are made by rego.py.
package bench

import data.bench.rules

default decision := {"allow": false}

# A rule that forbids, or that cannot be judged and might, wins over all that allow.
decision := {"allow": true, "rules": rules.allow} if {
	count(rules.allow) > 0
	count(rules.deny) == 0
}
