// Work that is done a few at a time, and that waits when the server says so.

/** The server has too much to do. */
export class Busy extends Error {
  /** @param {number} seconds After which to ask again. */
  constructor(seconds, message) {
    super(message);
    this.seconds = seconds;
  }
}

/** The server wants another token than the one it was sent. */
export class TokenNeeded extends Error {}

const MOST_TRIES = 30;

/**
 * @typedef {object} Job
 * @property {() => boolean} isWanted Asked when its turn comes; where not, the job is left out.
 * @property {() => Promise<void>} run Where it throws `Busy` or `TokenNeeded`, it is done again later.
 * @property {(problem: Error) => void} failed What to do with any other error.
 */

export class Queue {
  #jobs = [];
  #running = 0;
  #isHeld = false;
  #resumesAt = 0;
  #timer = 0;

  /**
   * @param {number} parallel Jobs at a time.
   * @param {{busy?: (seconds: number) => void, tokenNeeded?: () => void}} heard What to do when all wait.
   */
  constructor(parallel, heard = {}) {
    this.parallel = parallel;
    this.heard = heard;
  }

  /** @param {Job} job */
  add(job) {
    this.#jobs.push({ ...job, tries: 0 });
    this.#start();
  }

  /** Go on after a token was needed. */
  release() {
    this.#isHeld = false;
    this.#start();
  }

  #start() {
    const left = this.#resumesAt - Date.now();
    if (this.#isHeld) return;
    if (left > 0) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#start(), left);
      return;
    }
    while (this.#running < this.parallel && this.#jobs.length) {
      const job = this.#jobs.shift();
      if (!job.isWanted()) continue;
      this.#running += 1;
      this.#run(job).finally(() => {
        this.#running -= 1;
        this.#start();
      });
    }
  }

  async #run(job) {
    try {
      await job.run();
    } catch (problem) {
      job.tries += 1;
      if (problem instanceof TokenNeeded) {
        this.#jobs.unshift(job);
        if (!this.#isHeld) this.heard.tokenNeeded?.();
        this.#isHeld = true;
      } else if (problem instanceof Busy && job.tries < MOST_TRIES) {
        this.#jobs.unshift(job);
        this.#resumesAt = Math.max(this.#resumesAt, Date.now() + 1000 * problem.seconds);
        this.heard.busy?.(problem.seconds);
      } else {
        job.failed(problem);
      }
    }
  }
}
