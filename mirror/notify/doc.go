// Package notify tells services of the operator's what was pushed, judged and deleted. It signs
// requests as the stage pipeline/webhook does.
//
// Events have the form of the distribution registry (its documentation, "Notifications"), so that
// what listens to that one understands them; what it has no word for is in members of its own. Each
// endpoint has a bounded backlog in memory and gets its events in order, each until it has accepted
// it.
package notify
