output "dns_name" {
  description = "The name of the load balancer. Point the name of the certificate to it."
  value       = aws_lb.this.dns_name
}

output "zone_id" {
  description = "The zone of the load balancer, for an alias record."
  value       = aws_lb.this.zone_id
}

output "task_role_arn" {
  description = "The role of dray, for policies of repositories and for roles that it assumes."
  value       = aws_iam_role.task.arn
}

output "security_group_id" {
  description = "The security group of the tasks, which a Redis has to let in."
  value       = aws_security_group.task.id
}
