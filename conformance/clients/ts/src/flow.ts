// MIP's core flow against a server, through stubs that are generated from the protos and nothing else:
//
//     node dist/src/flow.js ADDRESS TOKEN_FILE
//
// It prints a line for each step and ends with status 1 at the first one that does not hold.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

import { Metadata, status } from "@grpc/grpc-js";

import type { Commit } from "../gen/mip/v1/commit.js";
import {
  CreateCubeRequest,
  DeleteCubeRequest,
  GetCubeRequest,
  PurgeCubeRequest,
  RollbackCubeRequest,
  VerifyCubeRequest,
} from "../gen/mip/v1/cube_service.js";
import { MemoryState } from "../gen/mip/v1/memory.js";
import {
  AddMemoriesRequest,
  DeleteMemoriesRequest,
  GetMemoryRequest,
  ListMemoriesRequest,
  PurgeMemoriesRequest,
  SearchMemoriesRequest,
  SearchMode,
  UpdateMemoryRequest,
} from "../gen/mip/v1/memory_service.js";
import { GetCapabilitiesRequest } from "../gen/mip/v1/server_service.js";
import { equal, names, present, refused, textOf } from "./checks.js";
import { Connection } from "./client.js";
import { blob, watch } from "./streams.js";

const TEA = "Ada prefers tea to coffee.";
const RELEASE = "The release is on Friday.";
const COFFEE = "Ada drinks coffee since March.";

/** A part of the flow; `needs` is what the server must declare for it, empty where it must offer it in any case. */
type Step = [name: string, needs: string, run: (flow: Flow) => Promise<void>];

const STEPS: Step[] = [
  ["GetCapabilities", "", (flow) => flow.getCapabilities()],
  ["CreateCube", "", (flow) => flow.createCube()],
  ["AddMemories", "", (flow) => flow.addMemories()],
  ["AddMemories again with the same request_id", "", (flow) => flow.addAgain()],
  ["GetMemory", "", (flow) => flow.getMemory()],
  ["SearchMemories by words", "search.lexical", (flow) => flow.search()],
  ["UpdateMemory with the etag", "", (flow) => flow.update()],
  ["UpdateMemory with a stale etag", "", (flow) => flow.updateStale()],
  ["ListMemories page by page", "", (flow) => flow.listPages()],
  ["WatchCube from revision 1", "history", (flow) => watch(flow.mip, flow.cube, 3n)],
  ["RollbackCube", "history", (flow) => flow.rollBack()],
  ["VerifyCube", "history", (flow) => flow.verify()],
  ["WriteBlob and ReadBlob", "mip.v1.BlobService", (flow) => blob(flow.mip, flow.cube)],
  ["DeleteMemories", "", (flow) => flow.deleteMemories()],
  ["PurgeMemories", "", (flow) => flow.purgeMemories()],
  ["DeleteCube", "", (flow) => flow.deleteCube()],
  ["PurgeCube", "", (flow) => flow.purgeCube()],
];

/** One run: what the server declares, and what earlier steps made. */
class Flow {
  readonly runId = randomUUID();
  readonly cube = `cubes/flow-ts-${this.runId}`;
  declared: string[] = [];
  private first = "";
  private second = "";
  private etag = "";
  private rollback: Commit | undefined;
  private readonly add = AddMemoriesRequest.fromPartial({
    parent: this.cube,
    memories: [TEA, RELEASE].map((text) => ({ payload: { $case: "plaintext" as const, value: { text } } })),
    requestId: this.requestId(2),
  });

  constructor(readonly mip: Connection) {}

  /** Returns a UUID for each mutation of this run. */
  private requestId(number: number): string {
    return this.runId.slice(0, -2) + String(number).padStart(2, "0");
  }

  private get both(): { parent: string; names: string[] } {
    return { parent: this.cube, names: [this.first, this.second] };
  }

  private async memory() {
    const { memories } = this.mip;
    const request = GetMemoryRequest.fromPartial({ name: this.first });
    const got = await this.mip.call(memories.getMemory.bind(memories), request);
    return present("memory", got.memory);
  }

  private list(pageSize: number, pageToken: string) {
    const { memories } = this.mip;
    const request = ListMemoriesRequest.fromPartial({ parent: this.cube, pageSize, pageToken });
    return this.mip.call(memories.listMemories.bind(memories), request);
  }

  async getCapabilities(): Promise<void> {
    const { server } = this.mip;
    // The one call without a token.
    const request = GetCapabilitiesRequest.create();
    const got = await this.mip.call(server.getCapabilities.bind(server), request, new Metadata());
    present("protocol_version", got.protocolVersion);
    this.declared = [...got.levels, ...got.services, ...got.features];
    for (const needed of ["core", "mip.v1.CubeService", "mip.v1.MemoryService"]) {
      equal(`${needed} is declared, which`, this.declared.includes(needed), true);
    }
  }

  async createCube(): Promise<void> {
    const { cubes } = this.mip;
    const request = CreateCubeRequest.fromPartial({
      cubeId: this.cube.replace("cubes/", ""),
      cube: { displayName: "Core flow" },
      requestId: this.requestId(1),
    });
    const got = await this.mip.call(cubes.createCube.bind(cubes), request);
    equal("cube.name", got.cube?.name, this.cube);
    equal("cube.display_name", got.cube?.displayName, "Core flow");
    equal("commit.revision", got.commit?.revision, 1n);
  }

  async addMemories(): Promise<void> {
    const { memories } = this.mip;
    const got = await this.mip.call(memories.addMemories.bind(memories), this.add);
    equal("the number of memories", got.memories.length, 2);
    equal("memories[0].plaintext.text", textOf(got.memories[0]), TEA);
    equal("memories[1].plaintext.text", textOf(got.memories[1]), RELEASE);
    equal("commit.revision", got.commit?.revision, 2n);
    this.first = present("memories[0].name", got.memories[0]?.name);
    this.second = present("memories[1].name", got.memories[1]?.name);
    equal("both having the same name", this.first === this.second, false);
    for (const name of this.both.names) {
      equal(`${name} being a memory of ${this.cube}`, name.startsWith(`${this.cube}/memories/`), true);
    }
  }

  async addAgain(): Promise<void> {
    const { memories } = this.mip;
    const got = await this.mip.call(memories.addMemories.bind(memories), this.add);
    equal("the names", names(got.memories), `${this.first} ${this.second}`);
    equal("commit.revision", got.commit?.revision, 2n);
  }

  async getMemory(): Promise<void> {
    const memory = await this.memory();
    equal("memory.name", memory.name, this.first);
    equal("memory.plaintext.text", textOf(memory), TEA);
    equal("memory.state", memory.state, MemoryState.MEMORY_STATE_ACTIVE);
    this.etag = present("memory.etag", memory.etag);
  }

  async search(): Promise<void> {
    const { memories } = this.mip;
    const request = SearchMemoriesRequest.fromPartial({
      cubes: [this.cube],
      input: { $case: "query", value: "tea" },
      mode: SearchMode.SEARCH_MODE_LEXICAL,
    });
    const got = await this.mip.call(memories.searchMemories.bind(memories), request);
    equal("the number of hits", got.hits.length, 1);
    equal("hits[0].memory.name", got.hits[0]?.memory?.name, this.first);
  }

  /** Asks to give the first memory another text, if its etag is still the one that was read. */
  private change(text: string, number: number) {
    const { memories } = this.mip;
    const request = UpdateMemoryRequest.fromPartial({
      memory: { name: this.first, etag: this.etag, payload: { $case: "plaintext", value: { text } } },
      updateMask: ["plaintext.text"],
      requestId: this.requestId(number),
    });
    return this.mip.call(memories.updateMemory.bind(memories), request);
  }

  async update(): Promise<void> {
    const got = await this.change(COFFEE, 3);
    equal("memory.plaintext.text", textOf(got.memory), COFFEE);
    equal("commit.revision", got.commit?.revision, 3n);
    equal("the etag being the same as before", got.memory?.etag === this.etag, false);
  }

  async updateStale(): Promise<void> {
    await refused(this.change(RELEASE, 4), status.ABORTED, "ETAG_MISMATCH");
    const { cubes } = this.mip;
    const got = await this.mip.call(cubes.getCube.bind(cubes), GetCubeRequest.fromPartial({ name: this.cube }));
    equal("cube.revision", got.cube?.revision, 3n);
  }

  /** Pages one by one. A page may be empty before the end, and the end may be found only on one that is. */
  async listPages(): Promise<void> {
    const listed = [];
    let token = "";
    for (let page = 1; page === 1 || token !== ""; page += 1) {
      const got = await this.list(1, token);
      if (got.memories.length > 1 || page > 10) {
        throw new Error(`page ${page} holds ${got.memories.length} memories`);
      }
      listed.push(...got.memories);
      token = got.nextPageToken;
    }
    equal("the names of all pages", names(listed), `${this.first} ${this.second}`);
  }

  async rollBack(): Promise<void> {
    const { cubes } = this.mip;
    const request = RollbackCubeRequest.fromPartial({ name: this.cube, toRevision: 2n, requestId: this.requestId(5) });
    this.rollback = (await this.mip.call(cubes.rollbackCube.bind(cubes), request)).commit;
    equal("commit.revision", this.rollback?.revision, 4n);
    const memory = await this.memory();
    equal("memory.plaintext.text", textOf(memory), TEA);
    equal("memory.state", memory.state, MemoryState.MEMORY_STATE_ACTIVE);
  }

  async verify(): Promise<void> {
    const { cubes } = this.mip;
    const { revision, digest } = present("the commit of the rollback", this.rollback);
    const request = VerifyCubeRequest.fromPartial({
      name: this.cube,
      expectedRevision: revision,
      expectedHeadDigest: digest,
    });
    const got = await this.mip.call(cubes.verifyCube.bind(cubes), request);
    equal("valid", got.valid, true);
    equal("the number of findings", got.findings.length, 0);
    equal("head_revision", got.headRevision, revision);
    equal("head_digest", got.headDigest.toString("hex"), digest.toString("hex"));
  }

  async deleteMemories(): Promise<void> {
    const { memories } = this.mip;
    const request = DeleteMemoriesRequest.fromPartial({ ...this.both, requestId: this.requestId(6) });
    await this.mip.call(memories.deleteMemories.bind(memories), request);
    equal("memory.state", (await this.memory()).state, MemoryState.MEMORY_STATE_DELETED);
    const listed = await this.list(0, "");
    equal("the listed memories", names(listed.memories), "");
    equal("next_page_token", listed.nextPageToken, "");
  }

  async purgeMemories(): Promise<void> {
    const { memories } = this.mip;
    const request = PurgeMemoriesRequest.fromPartial({
      ...this.both,
      reason: "the core flow ends",
      requestId: this.requestId(7),
    });
    const purged = await this.mip.call(memories.purgeMemories.bind(memories), request);
    const memory = await this.memory();
    equal("memory.state", memory.state, MemoryState.MEMORY_STATE_PURGED);
    equal("memory having a payload", memory.payload !== undefined, false);
    equal("memory.revision", memory.revision, present("commit", purged.commit).revision);
  }

  async deleteCube(): Promise<void> {
    const { cubes } = this.mip;
    const request = DeleteCubeRequest.fromPartial({ name: this.cube, requestId: this.requestId(8) });
    const got = await this.mip.call(cubes.deleteCube.bind(cubes), request);
    equal("cube.state", got.cube?.state, MemoryState.MEMORY_STATE_DELETED);
    await refused(this.list(0, ""), status.FAILED_PRECONDITION, "CUBE_DELETED");
  }

  async purgeCube(): Promise<void> {
    const { cubes } = this.mip;
    const request = PurgeCubeRequest.fromPartial({
      name: this.cube,
      reason: "the core flow ends",
      requestId: this.requestId(9),
    });
    const got = await this.mip.call(cubes.purgeCube.bind(cubes), request);
    equal("cube.state", got.cube?.state, MemoryState.MEMORY_STATE_PURGED);
  }
}

/** Runs the steps in order; returns the status of the process. */
async function run(address: string, tokenFile: string): Promise<number> {
  const mip = new Connection(address, readFileSync(tokenFile, "utf8").trim());
  const flow = new Flow(mip);
  let [passed, undeclared] = [0, 0];
  try {
    for (const [name, needs, step] of STEPS) {
      if (needs !== "" && !flow.declared.includes(needs)) {
        console.log(`not declared: ${name} (${needs})`);
        undeclared += 1;
        continue;
      }
      try {
        await step(flow);
      } catch (error) {
        console.error(`FAILED: ${name}: ${error instanceof Error ? error.message : String(error)}`);
        return 1;
      }
      console.log(`ok: ${name}`);
      passed += 1;
    }
  } finally {
    mip.close();
  }
  console.log(`the core flow passed: ${passed} steps, ${undeclared} not declared`);
  return 0;
}

const [address, tokenFile, ...rest] = process.argv.slice(2);
if (address === undefined || tokenFile === undefined || rest.length > 0) {
  console.error("usage: flow.js ADDRESS TOKEN_FILE");
  process.exitCode = 2;
} else {
  process.exitCode = await run(address, tokenFile);
}
