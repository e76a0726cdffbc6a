// Package notify sends events about pushes, verdicts, deletions and pulls to services of the
// operator. It signs requests as the stage pipeline/webhook does.
//
// Events have the form of the distribution registry (its documentation, "Notifications"), so that
// services for that registry understand them. Additional JSON fields have the data for which the
// form has no field. Each endpoint has a bounded backlog in memory, and receives the oldest event
// first. dray drops a new event if the backlog is full. It repeats an event until the endpoint
// accepts it or refuses it for good, or until dray stops.
package notify
