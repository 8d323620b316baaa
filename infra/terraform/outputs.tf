output "function_name" {
  description = "What `tallymark … --via` names, the alias `live`."
  value       = local.live
}

output "function_version" {
  description = "The version that this deployment published; for the way back (docs/DEPLOY.md)."
  value       = aws_lambda_function.this.version
}

output "table_name" {
  description = "What TALLYMARK_TABLE names for the command line."
  value       = local.table
}

output "queue_urls" {
  description = "The queues, and what was given up."
  value = {
    fresh                   = aws_sqs_queue.fresh.url
    fresh_dead_letters      = aws_sqs_queue.fresh_dead_letters.url
    backfill                = aws_sqs_queue.backfill.url
    backfill_dead_letters   = aws_sqs_queue.backfill_dead_letters.url
    invocation_dead_letters = aws_sqs_queue.invocation_dead_letters.url
  }
}

output "next" {
  description = "What to run next, in this order."
  value = [
    "export AWS_REGION=${local.region}; tallymark init --via ${local.live} && tallymark check --via ${local.live}",
    "AWS_REGION=${local.region} TALLYMARK_TABLE=${local.table} tallymark backfill ROLLUP --via ${local.live}",
    "AWS_REGION=${local.region} TALLYMARK_TABLE=${local.table} tallymark status",
  ]
}
