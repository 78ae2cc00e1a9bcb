# Less than the front door's job: the proof under a key that is known already, and the rules. No chain, no token.
package bench.proof

import data.bench
import data.known

default decision := {"allow": false}

decision := found if {
	found := bench.decision with input as facts
}

facts := {
	"namespace": instance.namespace,
	"agent": instance.agent,
	"key_tier": instance.key_tier,
	"attestation_age": (time.now_ns() - known.devices[instance.device].attested_ns) / 1000000000,
	"server": known.servers[call.resource],
	"tool": call.tool,
	"arguments": call.arguments,
}

instance := known.instances[input.instance]

call := claims.call if {
	[true, _, claims] = io.jwt.decode_verify(input.proof, {"cert": instance.key, "alg": "ES256", "aud": known.endpoint})
}
