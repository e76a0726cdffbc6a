// Package notify sends events about pushes, verdicts and deletions to services of the operator.
// It signs requests as the stage pipeline/webhook does.
//
// Events have the form of the distribution registry (its documentation, "Notifications"), so that
// services for that registry understand them. Data for which that form has no member is in
// additional members. Each endpoint has a bounded backlog in memory, and gets events in the order
// in which they happened. dray sends an event again until the endpoint accepts it or refuses it for
// good, or until dray stops.
package notify
