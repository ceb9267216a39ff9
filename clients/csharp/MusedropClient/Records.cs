using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Security.Cryptography;
using System.Text;

namespace Musedrop
{
    /// <summary>Reads files that other processes may write, rename or delete at the same time.</summary>
    internal static class Records
    {
        const long MaxRecordBytes = 16 << 20;

        /// <summary>Returns a JSON object of the share; null if it is missing or incomplete, or the share is unreachable.</summary>
        public static JsonFields Read(string path)
        {
            try
            {
                using (var file = OpenShared(path))
                using (var reader = new StreamReader(file, Encoding.UTF8))
                    return file.Length > MaxRecordBytes ? null : new JsonFields(Json.ReadObject(reader.ReadToEnd()));
            }
            catch (IOException)
            {
                return null;
            }
            catch (UnauthorizedAccessException)
            {
                return null;
            }
            catch (FormatException)
            {
                return null;
            }
        }

        /// <summary>Opens a file for reading; other processes may write, rename or delete it.</summary>
        public static FileStream OpenShared(string path)
        {
            return new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        }

        /// <summary>Returns the folders that a job of that name may have: NAME, NAME-2, NAME-3 ...</summary>
        public static IList<string> ListNumberedFolders(string parent, string name)
        {
            return ListFolders(parent, name).Where(path => IsNumbered(Path.GetFileName(path), name)).ToList();
        }

        public static IList<string> ListFolders(string parent, string name)
        {
            try
            {
                return Directory.EnumerateDirectories(parent, name + "*").ToList();
            }
            catch (IOException)
            {
                return new string[0];
            }
            catch (UnauthorizedAccessException)
            {
                return new string[0];
            }
        }

        static bool IsNumbered(string folder, string name)
        {
            if (!folder.StartsWith(name, StringComparison.OrdinalIgnoreCase)) return false;
            var rest = folder.Substring(name.Length);
            return rest.Length == 0 || rest.Length > 1 && rest[0] == '-' && rest.Skip(1).All(char.IsDigit);
        }

        /// <summary>Opens a file of the caller for reading. Throws MusedropException.</summary>
        public static FileStream OpenSource(string path)
        {
            try
            {
                return OpenShared(path);
            }
            catch (Exception problem) when (problem is IOException || problem is UnauthorizedAccessException)
            {
                var message = path + " can't be read: " + problem.Message;
                throw new MusedropException("missing_media", message, "Give the path of a file that this program can read.", problem);
            }
        }

        public static string ComputeHash(string path)
        {
            using (var hash = SHA256.Create())
            using (var file = OpenSource(path))
                return Hex(hash.ComputeHash(file));
        }

        public static string ComputeTextHash(string text)
        {
            using (var hash = SHA256.Create()) return Hex(hash.ComputeHash(Encoding.UTF8.GetBytes(text)));
        }

        static string Hex(byte[] bytes)
        {
            return BitConverter.ToString(bytes).Replace("-", "").ToLowerInvariant();
        }
    }
}
