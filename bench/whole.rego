# The front door's job, as far as OPA can do it: chain, proof, instance, device and pod as they are now, the rules, and a token.
# The proof is a JWS over the same call: OPA has nothing that reads an RFC 9421 signature, and no memory to refuse a replay.
package bench.whole

import data.bench
import data.known

default answer := {"allow": false}

answer := {"allow": true, "rules": decision.rules, "token": token} if decision.allow

decision := found if {
	found := bench.decision with input as facts
}

facts := {
	"namespace": instance.namespace,
	"agent": instance.agent,
	"key_tier": instance.key_tier,
	"attestation_age": (time.now_ns() - device.attested_ns) / 1000000000,
	"server": known.servers[call.resource],
	"tool": call.tool,
	"arguments": call.arguments,
} if {
	chain_is_ours
	instance.state == "Active"
	device.state == "Approved"
	known.pods[instance.pod]
}

# Instances are known by the digest of their certificate, which spares OPA a thumbprint of the key.
instance := known.instances[crypto.sha256(input.chain)]

device := known.devices[instance.device]

chain_is_ours if {
	chain := concat("", [known.root, input.chain])
	crypto.x509.parse_and_verify_certificates_with_options(chain, {"KeyUsages": ["KeyUsageClientAuth"]})[0]
}

# Signature, audience and expiry in one; OPA keeps the parsed certificate.
call := claims.call if {
	[true, _, claims] = io.jwt.decode_verify(input.proof, {"cert": input.chain, "alg": "ES256", "aud": known.endpoint})
	claims.exp - claims.iat <= 60
}

token := io.jwt.encode_sign_raw(known.token_header, json.marshal(token_claims), known.key)

token_claims := {
	"iss": known.issuer,
	"sub": instance.spiffe_id,
	"aud": call.resource,
	"client_id": instance.spiffe_id,
	"iat": now,
	"exp": now + 30,
	"jti": uuid.rfc4122("jti"),
	"cnf": instance.cnf,
	"act": {"sub": instance.spiffe_id},
	"authorization_details": [{
		"type": call.type,
		"protocol": call.protocol,
		"method": call.method,
		"tool": call.tool,
		"args": concat(":", ["sha256", crypto.sha256(json.marshal(call.arguments))]),
	}],
	"countersign": {
		"instance": instance.name,
		"key_tier": instance.key_tier,
		"assurance": device.assurance,
		"attested_at": floor(device.attested_ns / 1000000000),
	},
}

now := floor(time.now_ns() / 1000000000)
