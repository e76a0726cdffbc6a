package fleet

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"
)

// protocol is the number of the protocol that this source code implements. A version of dray that
// changes the messages between members, or how members read them, has the next number. A member
// ignores fields of JSON, headers and values in Redis that it does not know. It leaves such values
// in Redis unchanged.
const protocol = 1

// ahead has a number that Protocol adds to the constant protocol. Tests of members of different
// versions set it when they build dray: -ldflags "-X dray/cache/fleet.ahead=1".
var ahead string

// Protocol returns the number of the protocol that this program speaks. Members work together if
// their numbers differ by at most one.
func Protocol() int {
	n, _ := strconv.Atoi(ahead) // 0 if it is not set
	return protocol + n
}

// ErrProtocol says that the protocol of another member is too far from the protocol of this member.
var ErrProtocol = errors.New("the member speaks another protocol")

// sayFarAgain is the least time between two log lines about the same member whose protocol is too
// far from the protocol of this member.
const sayFarAgain = 10 * time.Minute

// strangers are the members whose protocol is too far from the protocol of this member, and which
// dray has logged. The map has, for each of them, the time from which dray may log the member
// again.
type strangers struct {
	mu  sync.Mutex
	all map[string]time.Time
}

// first reports whether dray must log a member now. If so, it records the time from which dray may
// log the member again.
func (s *strangers) first(member string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.all[member]) {
		return false
	}
	forget(s.all)
	s.all[member] = time.Now().Add(sayFarAgain)
	return true
}

// The headers of requests and answers between members.
const (
	headerProtocol   = "Dray-Protocol"
	headerMember     = "Dray-Member"     // the ID of the sender
	headerAddress    = "Dray-Address"    // the address of the sender
	headerTo         = "Dray-To"         // the ID of the intended receiver; another member may be at the receiver's address by now
	headerZone       = "Dray-Zone"       // the zone of the sender
	headerGeneration = "Dray-Generation" // the generation of the blob's Lease
	headerHop        = "Dray-Hop"        // how far the member that answers is from the registry (type position)
	headerSize       = "Dray-Size"       // the length of the whole blob in bytes; -1 if it is not known
	headerReady      = "Dray-Ready"      // how many bytes can be read at the offset without waiting
	headerParts      = "Dray-Parts"      // the parts of the blob that can be read without waiting
	headerFollowers  = "Dray-Followers"  // addresses of members that read the blob from this one
	headerTried      = "Dray-Tried"      // addresses of members that sent the blob to the sender too slowly, or not at all
)

// blobPath is the prefix of the path of a blob. The digest follows. HEAD returns at once which
// parts this member holds. GET sends bytes as they arrive. The query may have:
//   - "from" and "to", which are offsets. Without "to", the answer reaches to the end.
//   - held=1, which requests the bytes only if this member can send all of them without waiting.
//   - unfinished=1, which requests the blob only if this member does not have all of it yet.
const blobPath = "/blobs/"

// addresses returns the addresses in a header.
func addresses(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}
