# The same as the parameters of template.yaml, with the same defaults.

variable "name" {
  description = "The function's name, and the beginning of all other names."
  type        = string
  default     = "tallymark"

  validation {
    condition     = can(regex("^[a-zA-Z][a-zA-Z0-9-]{0,39}$", var.name))
    error_message = "name must begin with a letter and have at most 40 letters, digits and hyphens."
  }
}

variable "zip" {
  description = "The function's zip, as infra/package.sh makes it."
  type        = string

  validation {
    condition     = endswith(var.zip, ".zip")
    error_message = "zip must be the path of a zip file, such as target/lambda/tallymark.zip."
  }
}

variable "architecture" {
  description = "The processor that bootstrap in the zip was built for. arm64 costs a fifth less."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture must be arm64 or x86_64."
  }
}

variable "memory_size" {
  description = "Megabytes. Tallymark needs 16; more memory is more processor, which it hardly uses."
  type        = number
  default     = 256

  validation {
    condition     = var.memory_size >= 128 && var.memory_size <= 3008
    error_message = "memory_size must be 128 to 3008."
  }
}

variable "timeout_seconds" {
  description = "The budget of one invocation. A slice that takes longer goes on in the next one."
  type        = number
  default     = 120

  validation {
    condition     = var.timeout_seconds >= 30 && var.timeout_seconds <= 900
    error_message = "timeout_seconds must be 30 to 900."
  }
}

variable "log_filter" {
  description = "Which log lines are written, for example info,tallymark=debug."
  type        = string
  default     = "info"

  validation {
    condition     = can(regex("^[A-Za-z0-9_:=,-]{1,200}$", var.log_filter))
    error_message = "log_filter must be a filter such as info or info,tallymark=debug."
  }
}

variable "log_retention_days" {
  description = "Days for which log lines are kept."
  type        = number
  default     = 30

  validation {
    condition = contains(
      [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_retention_days
    )
    error_message = "log_retention_days must be one of 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731."
  }
}

variable "config_parameter" {
  description = "Name of an SSM parameter that holds the text of tallymark.toml. Empty: tallymark.toml is in the zip."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^((/[A-Za-z0-9_.-]+)+)?$", var.config_parameter))
    error_message = "config_parameter must be empty or begin with a slash, such as /tallymark/config."
  }
}

variable "source_parameter" {
  description = "The SSM parameter that [source] url names, such as /tallymark/source. Empty if it names none."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^((/[A-Za-z0-9_.-]+)+)?$", var.source_parameter))
    error_message = "source_parameter must be empty or begin with a slash, such as /tallymark/source."
  }
}

variable "source_secret" {
  description = "Whole ARN of the Secrets Manager secret that [source] url names. Empty if it names none."
  type        = string
  default     = ""

  validation {
    condition = can(regex(
      "^(arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+)?$", var.source_secret
    ))
    error_message = "source_secret must be empty or the whole ARN of a secret, its six random characters included."
  }
}

variable "target_parameter" {
  description = "The SSM parameter that [target] url names. Empty if it names none, or if there is no [target]."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^((/[A-Za-z0-9_.-]+)+)?$", var.target_parameter))
    error_message = "target_parameter must be empty or begin with a slash, such as /tallymark/target."
  }
}

variable "target_secret" {
  description = "Whole ARN of the Secrets Manager secret that [target] url names. Empty if it names none."
  type        = string
  default     = ""

  validation {
    condition = can(regex(
      "^(arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+)?$", var.target_secret
    ))
    error_message = "target_secret must be empty or the whole ARN of a secret, its six random characters included."
  }
}

variable "notify_parameter" {
  description = "The SSM parameter that [notify] url names, such as /tallymark/notify. Empty if it names none."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^((/[A-Za-z0-9_.-]+)+)?$", var.notify_parameter))
    error_message = "notify_parameter must be empty or begin with a slash, such as /tallymark/notify."
  }
}

variable "notify_secret" {
  description = "Whole ARN of the Secrets Manager secret that [notify] url names. Empty if it names none."
  type        = string
  default     = ""

  validation {
    condition = can(regex(
      "^(arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+)?$", var.notify_secret
    ))
    error_message = "notify_secret must be empty or the whole ARN of a secret, its six random characters included."
  }
}

variable "ping_parameter" {
  description = "The SSM parameter that [notify] ping names, such as /tallymark/ping. Empty if it names none."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^((/[A-Za-z0-9_.-]+)+)?$", var.ping_parameter))
    error_message = "ping_parameter must be empty or begin with a slash, such as /tallymark/ping."
  }
}

variable "ping_secret" {
  description = "Whole ARN of the Secrets Manager secret that [notify] ping names. Empty if it names none."
  type        = string
  default     = ""

  validation {
    condition = can(regex(
      "^(arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+)?$", var.ping_secret
    ))
    error_message = "ping_secret must be empty or the whole ARN of a secret, its six random characters included."
  }
}

variable "secrets_key" {
  description = <<-EOT
    ARN of the customer managed key of those parameters and secrets, if it differs from data_key. Empty for data_key, or
    for keys that AWS manages.
  EOT
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+)?$", var.secrets_key))
    error_message = "secrets_key must be empty or the ARN of a KMS key."
  }
}

variable "data_key" {
  description = <<-EOT
    ARN of a customer managed key ($1 a month) for all data at rest: the table, the queues, the log, the alarms' topic
    and the function's environment. Its policy must hold infra/key-policy.json. Empty for keys that AWS owns.
  EOT
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+)?$", var.data_key))
    error_message = "data_key must be empty or the ARN of a KMS key."
  }
}

variable "permissions_boundary" {
  description = "ARN of the policy that bounds the function's role, where an account demands one. Empty for none."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[A-Za-z0-9+=,.@_/-]+)?$", var.permissions_boundary))
    error_message = "permissions_boundary must be empty or the ARN of a managed policy."
  }
}

variable "source_db_user" {
  description = <<-EOT
    ARN of the database user for IAM authentication to the source, such as
    arn:aws:rds-db:eu-central-1:123456789012:dbuser:db-ABCDEFGHIJKL01234/tallymark. Empty for a password.
  EOT
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(arn:aws[a-z-]*:rds-db:[a-z0-9-]+:[0-9]{12}:dbuser:[A-Za-z0-9-]+/[A-Za-z0-9_.@+-]+)?$", var.source_db_user))
    error_message = "source_db_user must be empty or arn:aws:rds-db:REGION:ACCOUNT:dbuser:RESOURCE_ID/USER."
  }
}

variable "target_db_user" {
  description = "The same for the target. Empty for a password, or if there is no [target]."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(arn:aws[a-z-]*:rds-db:[a-z0-9-]+:[0-9]{12}:dbuser:[A-Za-z0-9-]+/[A-Za-z0-9_.@+-]+)?$", var.target_db_user))
    error_message = "target_db_user must be empty or arn:aws:rds-db:REGION:ACCOUNT:dbuser:RESOURCE_ID/USER."
  }
}

variable "table_name" {
  description = <<-EOT
    The checkpoints' table. Empty for `name`, so that two installations never share a table by accident. The function
    uses it whatever [checkpoint] table says.
  EOT
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([a-zA-Z0-9_.-]{3,255})?$", var.table_name))
    error_message = "table_name must be empty or 3 to 255 of a-z A-Z 0-9 _ - ."
  }
}

variable "create_table" {
  description = "Whether to make the table. False if `tallymark init` has made it already."
  type        = bool
  default     = true
}

variable "schedule_rate" {
  description = "How often a tick looks for due slices. The alarms expect at least two ticks an hour."
  type        = string
  default     = "rate(5 minutes)"

  validation {
    condition     = can(regex("^rate\\((1 minute|([2-9]|[12][0-9]|30) minutes)\\)$", var.schedule_rate))
    error_message = "schedule_rate must be rate(1 minute) or rate(2 minutes) to rate(30 minutes)."
  }
}

variable "schedule_enabled" {
  description = "Whether ticks run."
  type        = bool
  default     = true
}

variable "fresh_concurrency" {
  description = "Concurrent invocations for fresh slices. `slots` in tallymark.toml caps the readers of the source."
  type        = number
  default     = 2

  validation {
    condition     = var.fresh_concurrency >= 2 && var.fresh_concurrency <= 1000
    error_message = "fresh_concurrency must be 2 to 1000."
  }
}

variable "backfill_concurrency" {
  description = "Concurrent invocations for backfills. `slots` in tallymark.toml caps the readers of the source."
  type        = number
  default     = 2

  validation {
    condition     = var.backfill_concurrency >= 2 && var.backfill_concurrency <= 1000
    error_message = "backfill_concurrency must be 2 to 1000."
  }
}

variable "alarm_email" {
  description = "Address that is told of alarms; it must confirm once. Empty for none."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([^@\\s]+@[^@\\s]+\\.[^@\\s]+)?$", var.alarm_email))
    error_message = "alarm_email must be empty or an e-mail address."
  }
}

variable "alarm_topic" {
  description = "ARN of an SNS topic of yours that is told of alarms. Empty for none, or for alarm_email."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]+)?$", var.alarm_topic))
    error_message = "alarm_topic must be empty or the ARN of a standard SNS topic."
  }

  validation {
    condition     = var.alarm_topic == "" || var.alarm_email == ""
    error_message = "give alarm_email or alarm_topic, not both."
  }
}

variable "alarm_actions" {
  description = "Whether alarms tell anybody. False while the first backfill runs keeps the watermark's alarm quiet."
  type        = bool
  default     = true
}

variable "watermark_lag_seconds_max" {
  description = "Alarm if, for an hour, the worst watermark is further than this behind the newest readable slice."
  type        = number
  default     = 7200

  validation {
    condition     = var.watermark_lag_seconds_max >= 0 && var.watermark_lag_seconds_max <= 31536000
    error_message = "watermark_lag_seconds_max must be 0 to 31536000."
  }
}

variable "held_hours_max" {
  description = "Alarm if due work is held back for this many hours. Choose more than your quiet_hours last."
  type        = number
  default     = 1

  validation {
    condition     = contains([1, 2, 4, 8, 12, 24], var.held_hours_max)
    error_message = "held_hours_max must be 1, 2, 4, 8, 12 or 24."
  }
}

variable "create_dashboard" {
  description = <<-EOT
    Whether to make a dashboard, and the metrics that no alarm but only a dashboard shows, at $3.30 a month
    (docs/COST.md). An account's first three dashboards are free, each further one costs $3 a month.
  EOT
  type        = bool
  default     = false
}

variable "vpc_subnets" {
  description = <<-EOT
    Private subnets, for a database that only a VPC reaches. Warning: a function in a VPC reaches DynamoDB, SQS, SSM
    and Secrets Manager only through a NAT gateway (about $33 a month idle) or VPC endpoints. Empty, the default:
    outside of any VPC.
  EOT
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for subnet in var.vpc_subnets : can(regex("^subnet-[0-9a-f]+$", subnet))])
    error_message = "vpc_subnets must be subnet IDs."
  }
}

variable "vpc_security_groups" {
  description = "Security groups of the function; they must let it out to the database and to AWS."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for group in var.vpc_security_groups : can(regex("^sg-[0-9a-f]+$", group))])
    error_message = "vpc_security_groups must be security group IDs."
  }

  validation {
    condition     = (length(var.vpc_subnets) == 0) == (length(var.vpc_security_groups) == 0)
    error_message = "vpc_subnets and vpc_security_groups need each other."
  }
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
}
