package fleet

import (
	"strings"
)

// Protocol is the number of the protocol that this version speaks. Members whose numbers differ by
// one work together.
const Protocol = 1

// The headers of requests and answers between members.
const (
	headerProtocol   = "Dray-Protocol"
	headerMember     = "Dray-Member"     // the ID of the sender
	headerAddress    = "Dray-Address"    // of the member that asks
	headerTo         = "Dray-To"         // the ID of the member that is meant; another one may be at its address by now
	headerZone       = "Dray-Zone"       // of the sender
	headerGeneration = "Dray-Generation" // of the lease
	headerHop        = "Dray-Hop"        // of the member that answers
	headerSize       = "Dray-Size"       // of the whole blob, in bytes; -1 if it is not known
	headerReady      = "Dray-Ready"      // how many bytes can be read at the offset without waiting
	headerParts      = "Dray-Parts"      // the parts of the blob that can be read without waiting
	headerFollowers  = "Dray-Followers"  // addresses of members that read the blob from this one
	headerTried      = "Dray-Tried"      // addresses of members that have not given the blob
)

// blobPath begins the path of a blob. Its digest follows. HEAD says what this member holds, at
// once. GET gives bytes while they arrive. The parameters of the query are:
//   - from and to are offsets. Without to, an answer reaches to the end.
//   - held=1 asks only for bytes for which this member does not wait.
//   - unfinished=1 asks for the blob only if this member does not have all of it.
const blobPath = "/blobs/"

// addresses returns the addresses in a header.
func addresses(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}
