using System;
using System.Collections.Generic;
using System.IO;
using System.Threading;
using System.Threading.Tasks;

namespace Musedrop
{
    /// <summary>Timeouts of a client.</summary>
    public sealed class MusedropOptions
    {
        /// <summary>Time between two reads of the share. Default: half a second.</summary>
        public TimeSpan PollInterval { get; set; }
        /// <summary>Time after which a job file is removed from the inbox again, because no daemon seems to run. Default: two minutes.</summary>
        public TimeSpan PickupTimeout { get; set; }
        /// <summary>Time for which the share may be unreachable during a wait. Default: five minutes.</summary>
        public TimeSpan UnreachableTimeout { get; set; }
        /// <summary>Time limit of the whole wait. Default: <see cref="Timeout.InfiniteTimeSpan"/>.</summary>
        public TimeSpan WaitTimeout { get; set; }

        /// <summary>The defaults.</summary>
        public MusedropOptions()
        {
            PollInterval = TimeSpan.FromSeconds(0.5);
            PickupTimeout = TimeSpan.FromMinutes(2);
            UnreachableTimeout = TimeSpan.FromMinutes(5);
            WaitTimeout = Timeout.InfiniteTimeSpan;
        }
    }

    /// <summary>Decides when to stop waiting, and why.</summary>
    internal sealed class WaitPolicy
    {
        static readonly TimeSpan ResultGrace = TimeSpan.FromMinutes(1);
        readonly MusedropOptions options;
        readonly Dictionary<string, TimeSpan> since = new Dictionary<string, TimeSpan>();

        public WaitPolicy(MusedropOptions options)
        {
            this.options = options;
        }

        /// <summary>Returns the error code that ends the wait, or null. `now` is the time since the wait began.</summary>
        public string FindTimeout(JobSnapshot snapshot, TimeSpan now)
        {
            if (UpdateTimer(ErrorCodes.ShareUnavailable, !snapshot.Reachable, now, options.UnreachableTimeout)) return ErrorCodes.ShareUnavailable;
            if (UpdateTimer(ErrorCodes.NotTaken, snapshot.Progress.State == JobState.Submitted, now, options.PickupTimeout)) return ErrorCodes.NotTaken;
            if (UpdateTimer(ErrorCodes.ResultMissing, snapshot.Reachable && IsGone(snapshot), now, ResultGrace)) return ErrorCodes.ResultMissing;
            return IsOver(now, options.WaitTimeout) ? ErrorCodes.WaitTimeout : null;
        }

        static bool IsGone(JobSnapshot snapshot)
        {
            return snapshot.Progress.State == JobState.Done || snapshot.Progress.State == JobState.Accepted && snapshot.Idle;
        }

        /// <summary>Starts, keeps or resets the timer of a condition. Returns true when it has held for `limit`.</summary>
        bool UpdateTimer(string what, bool holds, TimeSpan now, TimeSpan limit)
        {
            if (!holds) since.Remove(what);
            else if (!since.ContainsKey(what)) since[what] = now;
            return holds && IsOver(now - since[what], limit);
        }

        static bool IsOver(TimeSpan lasted, TimeSpan limit)
        {
            return limit != Timeout.InfiniteTimeSpan && lasted >= limit;
        }
    }

    /// <summary>Signals new folders. A hint only, which shortens the wait: network shares lose events.</summary>
    internal sealed class FolderWatcher : IDisposable
    {
        readonly SemaphoreSlim signalled = new SemaphoreSlim(0, 1);
        readonly List<FileSystemWatcher> watchers = new List<FileSystemWatcher>();

        public FolderWatcher(params string[] folders)
        {
            foreach (var folder in folders) Watch(folder);
        }

        void Watch(string folder)
        {
            FileSystemWatcher watcher = null;
            try
            {
                watcher = new FileSystemWatcher(folder) { NotifyFilter = NotifyFilters.DirectoryName };
                watcher.Created += (sender, change) => Signal();
                watcher.Renamed += (sender, change) => Signal();
                watcher.EnableRaisingEvents = true;
                watchers.Add(watcher);
            }
            catch (Exception problem) when (IsRefusal(problem))
            {
                if (watcher != null) watcher.Dispose();
            }
        }

        static bool IsRefusal(Exception problem)
        {
            return problem is IOException || problem is ArgumentException || problem is UnauthorizedAccessException || problem is PlatformNotSupportedException;
        }

        void Signal()
        {
            try
            {
                signalled.Release();
            }
            catch (SemaphoreFullException)
            {
            }
            catch (ObjectDisposedException)
            {
            }
        }

        public Task Wait(TimeSpan atMost, CancellationToken cancel)
        {
            return signalled.WaitAsync(atMost, cancel);
        }

        public void Dispose()
        {
            foreach (var watcher in watchers) watcher.Dispose();
            signalled.Dispose();
        }
    }
}
